"""Tools around moveout: real servers, the demo, benchmarks. Not part of the distribution."""
