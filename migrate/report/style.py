"""The page's style: light and dark, phone, desk and paper."""

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #5b6470; --paper: #fff; --panel: #f4f5f7; --line: #d9dde2;
  --fill: #2f6fb0; --track: #e6e9ed; --good: #1a7f4b; --bad: #b3261e; --good-paper: #e7f5ec; --bad-paper: #fcebea; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaee; --soft: #a3adb8; --paper: #14171a; --panel: #1d2226;
  --line: #353c43; --fill: #6aa9e9; --track: #262c32; --good: #6fd49d; --bad: #ff9d94; --good-paper: #14301f;
  --bad-paper: #3a1917; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1.25rem 4rem; max-width: 62rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; padding-top: .75rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p { margin: .5rem 0; max-width: 46rem; } p bdi, li bdi { overflow-wrap: anywhere; }
a { color: var(--fill); }
.soft, figcaption, dt { color: var(--soft); }
.verdict { margin: 1rem 0; padding: .75rem 1rem; border-left: 4px solid var(--good); background: var(--good-paper); }
.verdict strong { color: var(--good); font-size: 1.1rem; }
.verdict.bad { color: inherit; border-color: var(--bad); background: var(--bad-paper); }
.verdict.bad strong { color: var(--bad); }
.good { color: var(--good); } .bad { color: var(--bad); }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: .75rem 1.5rem; margin: 1rem 0; }
dt { font-size: .85rem; } dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; margin: .5rem 0 1rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td { min-width: 5.5rem; } td.number { min-width: 0; } td bdi { overflow-wrap: anywhere; }
td > .digest { display: inline-block; min-width: 9.5rem; } td > a { overflow-wrap: anywhere; }
.keep, time { white-space: nowrap; } .keep bdi { overflow-wrap: normal; }
code, pre, .digest { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .82rem; }
.digest { overflow-wrap: anywhere; } @media (min-width: 56rem) { .digest.whole { white-space: nowrap; } }
pre { background: var(--panel); padding: .75rem 1rem; overflow-x: auto; border-radius: 4px; }
.code { font-family: ui-monospace, monospace; font-size: .75em; padding: 0 .2em; border: 1px solid var(--line);
  border-radius: 3px; color: var(--soft); white-space: nowrap; }
figure { margin: 1rem 0 1.5rem; } figcaption { margin-bottom: .4rem; }
.bar { display: grid; grid-template-columns: minmax(6rem, 16rem) 1fr 5.5rem; gap: .75rem; align-items: center;
  padding: .12rem 0; font-size: .9rem; break-inside: avoid; }
.bar .label { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.bar .value { text-align: right; font-variant-numeric: tabular-nums; }
.bar svg { width: 100%; height: .75rem; display: block; }
.track { fill: var(--track); } .fill { fill: var(--fill); }
.area { width: 100%; height: 7rem; display: block; background: var(--panel); }
.axis { display: flex; flex-wrap: wrap; gap: 0 1rem; justify-content: space-between;
font-size: .85rem; color: var(--soft); }
footer { margin-top: 3rem; font-size: .85rem; color: var(--soft); }
@media (max-width: 36rem) { body { padding: 1rem .9rem 3rem; } h1 { font-size: 1.4rem; }
  .bar { grid-template-columns: 1fr 5.5rem; gap: .1rem .75rem; padding: .3rem 0; }
  .bar .label { white-space: normal; overflow-wrap: anywhere; } .bar svg { grid-column: 1 / -1; grid-row: 2; } }
@media screen and (max-width: 36rem) { thead { display: none; }
  table, tbody, tr { display: block; } tr { padding: .4rem 0; border-bottom: 1px solid var(--line); }
  td, td.number { display: block; position: relative; min-height: 1.5em; padding: .1rem 0 .1rem 8rem; border: 0;
    text-align: left; white-space: normal; }
  td::before { content: attr(data-head); position: absolute; left: 0; width: 7.5rem; color: var(--soft); } }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --paper: #fff; --panel: #f4f4f4; --line: #bbb;
  --fill: #2f6fb0; --track: #e6e6e6; --good: #075e33; --bad: #8c1710; --good-paper: #fff; --bad-paper: #fff; }
  body { font-size: 10pt; max-width: none; padding: 0; } h2, h3, h3 + p { break-after: avoid; }
  tr, dl > div, .verdict { break-inside: avoid; }
  table { font-size: 8pt; } .digest { font-size: 7pt; } th, td { padding-right: .5rem; } th { white-space: normal; }
  td, td > .digest { min-width: 0; } td:first-child bdi { display: inline-block; min-width: 8rem; }
  thead { display: table-header-group; } .wide { overflow: visible; }
  pre { white-space: pre-wrap; }
  .track, .fill, .verdict { print-color-adjust: exact; } @page { margin: 18mm 15mm; } }
"""
