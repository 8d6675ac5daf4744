"""moto's server with an account that has three regions enabled: ``python moto_server.py PORT IMAGES``.

Calls that moto does not know are answered as AWS answers them where there is nothing (AWS's API references).
"""

import io
import json
import os
import re
import sys
from pathlib import Path

os.environ["MOTO_AMIS_PATH"] = str(Path(sys.argv[2]))  # no images, hence no snapshots of theirs

from moto.ec2.models.availability_zones_and_regions import RegionsAndZonesBackend
from moto.iam.access_control import IAMRequestBase
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.server import MotoRequestHandler
from werkzeug.serving import run_simple

ENABLED = {"us-east-1", "eu-west-1", "ap-southeast-2"}
SCOPE = re.compile(r"Credential=[^/]+/\d+/([\w-]+)/([\w-]+)/")
NOTHING = {
    "docdb-elastic": {"clusters": []},
    "redshift-serverless": {"namespaces": []},
    "s3tables": {"tableBuckets": []},
}
NEVER_USED = {
    "__type": "com.amazonaws.timestream#AccessDeniedException",
    "message": "Only existing Timestream for LiveAnalytics customers can access the service.",
}
NO_CACHES = (
    "<DescribeServerlessCachesResponse><DescribeServerlessCachesResult><ServerlessCaches/>"
    "</DescribeServerlessCachesResult></DescribeServerlessCachesResponse>"
)
NO_DIRECTORY_BUCKETS = "<ListAllMyDirectoryBucketsResult><Buckets/></ListAllMyDirectoryBucketsResult>"


def main():
    for region in RegionsAndZonesBackend.regions:
        if region.name not in ENABLED:
            region.opt_in_status = "not-opted-in"
    IAMRequestBase.check_signature = lambda _: None  # moto computes it wrongly for GET requests
    moto = DomainDispatcherApplication(create_backend_app)

    def application(environ, start_response):
        scope = SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
        service = scope[2] if scope else ""
        if service in NOTHING:
            start_response("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(NOTHING[service]).encode()]
        if service == "elasticache" and _is_about_serverless(environ):
            start_response("200 OK", [("Content-Type", "text/xml")])
            return [NO_CACHES.encode()]
        if service == "s3express":
            start_response("200 OK", [("Content-Type", "text/xml")])
            return [NO_DIRECTORY_BUCKETS.encode()]
        if service == "timestream" and scope[1] == "ap-southeast-2":
            start_response("403 Forbidden", [("Content-Type", "application/x-amz-json-1.0")])
            return [json.dumps(NEVER_USED).encode()]
        return moto(environ, start_response)

    run_simple("127.0.0.1", int(sys.argv[1]), application, threaded=True, request_handler=MotoRequestHandler)


def _is_about_serverless(environ):
    """Look into the body and put it back."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    return b"DescribeServerlessCaches" in body


if __name__ == "__main__":
    main()
