"""Style sheet and script of the page. Both stand in it by their digests, and nothing else may run."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from launch.base.html import digest

STYLE = """
:root{color-scheme:light dark;--ink:#1c2733;--paper:#fff;--soft:#5b6b7b;--line:#d5dde5;--box:#f5f7fa;--good:#2e7d4f;
--bad:#b3402a;--open:#8a6a12;--c0:#3b76b8;--c1:#c2603f;--c2:#3f8f5f;--c3:#8559a5;--queue:#c9d2db;--start:#d9b44a;
--again:#c2603f;--save:#8559a5}
[data-theme=dark]{color-scheme:dark}[data-theme=light]{color-scheme:light}
@media(prefers-color-scheme:dark){:root:not([data-theme=light]){--ink:#dfe6ee;--paper:#12171d;--soft:#93a3b3;
--line:#2a343f;--box:#1b232c;--good:#62c08a;--bad:#e98a74;--open:#dcb65a;--c0:#78aee8;--c1:#e39676;--c2:#7ac499;
--c3:#bd96da;--queue:#3a4652}}
:root[data-theme=dark]{--ink:#dfe6ee;--paper:#12171d;--soft:#93a3b3;--line:#2a343f;--box:#1b232c;--good:#62c08a;
--bad:#e98a74;--open:#dcb65a;--c0:#78aee8;--c1:#e39676;--c2:#7ac499;--c3:#bd96da;--queue:#3a4652}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,"Noto Sans KR","NanumGothic",sans-serif;max-width:64rem;margin:1.2rem auto;padding:0 1rem;
color:var(--ink);background:var(--paper)}
p,h1,h3{overflow-wrap:anywhere}h1{font-size:1.15rem;margin:0;font-weight:600}
h2{font-size:1.1rem;margin:2rem 0 .5rem;border-bottom:1px solid var(--line)}
h3{font-size:1rem;margin:1rem 0 .3rem}
.soft,small{color:var(--soft)}small{font-size:12px}.verdict{font-size:1.5rem;font-weight:600;margin:.4rem 0}
.good{color:var(--good)}.bad{color:var(--bad)}.open{color:var(--open)}
.one{white-space:nowrap}.wide{overflow-x:auto}table{border-collapse:collapse;width:100%}
td,th{text-align:left;padding:.25rem .8rem .25rem 0;vertical-align:top}td.n,th.n{text-align:right;
font-variant-numeric:tabular-nums}tr+tr td{border-top:1px solid var(--line)}
pre,.text{white-space:pre-wrap;overflow-wrap:anywhere;background:var(--box);padding:.5rem;border-radius:4px;
margin:.3rem 0;max-height:16rem;overflow:auto;font-size:13px}code{font-size:13px;overflow-wrap:anywhere}
svg{width:100%;height:auto;max-width:60rem}svg.interval{width:11rem;height:1.1rem}
svg text{font:12px system-ui,sans-serif;fill:var(--soft)}.grid{stroke:var(--line);fill:none}
.line{fill:none;stroke-width:1.8;stroke:var(--c0)}.dashed{stroke-dasharray:6 4}.dot{fill:var(--c0)}
.l0{stroke:var(--c0)}.l1{stroke:var(--c1)}.l2{stroke:var(--c2)}.l3{stroke:var(--c3)}
text.name{stroke:none}text.l0{fill:var(--c0)}text.l1{fill:var(--c1)}text.l2{fill:var(--c2)}text.l3{fill:var(--c3)}
.mark{stroke:var(--soft);stroke-dasharray:2 3;fill:none}
.d-waiting{fill:var(--box);stroke:var(--line)}.d-queued{fill:var(--queue)}.d-starting{fill:var(--start)}
.d-working{fill:var(--c2)}.d-saving,.d-ending{fill:var(--save)}.d-made{fill:var(--again)}
svg text.cross{fill:var(--bad);font-size:18px;font-weight:bold}
.key span{display:inline-block;margin-right:1rem}.key svg{width:.9rem;height:.9rem;vertical-align:-.1rem}
button,select{font:inherit;color:inherit;background:var(--box);border:1px solid var(--line);border-radius:4px;
padding:.1rem .6rem;cursor:pointer}
details{margin:.4rem 0}summary{cursor:pointer}
.answers{display:grid;grid-template-columns:repeat(auto-fit,minmax(14rem,1fr));gap:.6rem}
.row{border-top:1px solid var(--line);padding:.5rem 0}[hidden]{display:none}
.tools{float:right}@media(max-width:640px){.tools{float:none}}
@media print{@page{size:A4;margin:14mm}body{max-width:none;font-size:11px;margin:0}.tools,.filter{display:none}
.row,svg,tr{break-inside:avoid}pre,.text{max-height:none}:root{color-scheme:light}}
"""

SCRIPT = """
'use strict';
const root = document.documentElement;
document.getElementById('theme').addEventListener('click', () => {
  const dark = root.dataset.theme ? root.dataset.theme === 'dark'
    : matchMedia('(prefers-color-scheme: dark)').matches;
  root.dataset.theme = dark ? 'light' : 'dark';
});
document.getElementById('print').addEventListener('click', () => {
  for (const one of document.querySelectorAll('details')) one.open = true;
  print();
});
for (const choice of document.querySelectorAll('select.filter'))
  choice.addEventListener('change', () => {
    for (const row of document.getElementById(choice.dataset.of).children)
      row.hidden = choice.value !== 'all' && row.dataset.moved !== choice.value;
  });
"""


def still(title: str, parts: Iterable[str], language: str = "en") -> str:
    """A whole page of these parts, in which no script runs and nothing is loaded."""
    policy = f"default-src 'none'; style-src {digest(STYLE)}"
    return (
        f"<!DOCTYPE html>\n<html lang={language}><head><meta charset=utf-8><meta name=viewport "
        f"content='width=device-width,initial-scale=1'><meta http-equiv=Content-Security-Policy content=\"{policy}\">"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body><main>\n{''.join(filter(None, parts))}\n"
        "</main></body></html>\n"
    )
