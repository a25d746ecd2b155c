"""The sheet as one file: it works from a disk without a network, keeps what was answered in the browser, and gives it
back as ``answers.json``. What models wrote is shown as text, and the page may load and run nothing but its own script.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from launch.base.html import digest

_STYLE = """
:root{color-scheme:light dark;--ink:#1c2733;--paper:#fff;--soft:#5b6b7b;--line:#d5dde5;--box:#f5f7fa;--mark:#3b76b8}
@media(prefers-color-scheme:dark){:root{--ink:#dfe6ee;--paper:#12171d;--soft:#93a3b3;--line:#2a343f;--box:#1b232c}}
body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:1rem auto;padding:0 1rem;color:var(--ink);
background:var(--paper)}
h1{font-size:1.2rem}h2{font-size:1rem;margin:.6rem 0 .2rem}.soft{color:var(--soft)}
.text{white-space:pre-wrap;overflow-wrap:anywhere;background:var(--box);border:2px solid var(--line);border-radius:6px;
padding:.8rem;max-height:50vh;overflow:auto}
.two{display:grid;grid-template-columns:1fr 1fr;gap:1rem;margin:1rem 0}
@media(max-width:640px){.two{grid-template-columns:1fr}}
button{font:inherit;padding:.4rem .8rem;margin:.2rem .2rem .2rem 0;border:2px solid var(--line);border-radius:6px;
background:var(--box);color:inherit;cursor:pointer}
button[aria-pressed=true]{border-color:var(--mark);font-weight:bold}
textarea{width:100%;box-sizing:border-box;font:inherit;background:var(--box);color:inherit;border:1px solid var(--line)}
progress{width:100%}[hidden]{display:none}
"""

_BODY = """
<main>
<h1>Which answer is better?</h1>
<p id=begin>You are rater <span id=raters></span></p>
<section id=sheet hidden>
<progress id=bar></progress><p class=soft id=place aria-live=polite></p>
<h2 class=soft>Asked</h2><div class=text id=asked dir=auto></div>
<div class=two><div><h2 class=soft>Left</h2><div class=text id=left dir=auto tabindex=0></div></div>
<div><h2 class=soft>Right</h2><div class=text id=right dir=auto tabindex=0></div></div></div>
<p><button data-choice=left>Left is better (&larr;)</button><button data-choice=right>Right is better (&rarr;)</button>
<button data-choice=tie>Equal (=)</button><button data-choice=neither>Both are bad (x)</button></p>
<p><label>Note (n)<textarea id=note rows=2></textarea></label></p>
<p><button id=back>Back (b)</button><button id=next>Skip (s)</button><button id=save>Save answers.json (a)</button>
<span class=soft id=kept></span></p>
</section></main>
"""

_SCRIPT = """
'use strict';
const sheet = JSON.parse(document.getElementById('data').textContent);
const items = new Map(sheet.items.map(one => [one.id, one]));
const at = id => document.getElementById(id);
let rater = 0, order = [], place = 0, answers = {}, began = 0;
const name = () => 'sheet-' + sheet.sheet + '-' + rater;
function keep() {
  try { localStorage.setItem(name(), JSON.stringify(answers)); at('kept').textContent = 'kept in this browser'; }
  catch (error) { at('kept').textContent = 'this browser keeps nothing: save before you leave'; }
}
function start(number) {
  rater = number; order = sheet.orders[number - 1]; answers = {};
  try { answers = JSON.parse(localStorage.getItem(name())) || {}; } catch (error) { answers = {}; }
  place = Math.max(0, order.findIndex(([id]) => !(answers[id] || {}).choice));
  at('begin').hidden = true; at('sheet').hidden = false; show();
}
function show() {
  const [id, turned] = order[place], item = items.get(id), mine = answers[id] || {};
  const texts = turned ? [item.texts[1], item.texts[0]] : item.texts;
  const done = order.filter(([one]) => (answers[one] || {}).choice).length;
  at('bar').max = order.length; at('bar').value = done;
  at('place').textContent = (place + 1) + ' of ' + order.length + ', ' + done + ' answered';
  at('asked').textContent = item.asked; at('left').textContent = texts[0]; at('right').textContent = texts[1];
  at('note').value = mine.note || '';
  for (const one of document.querySelectorAll('[data-choice]'))
    one.setAttribute('aria-pressed', String(one.dataset.choice === mine.choice));
  for (const one of ['asked', 'left', 'right']) at(one).scrollTop = 0;
  began = Date.now();
}
function choose(choice) {
  const id = order[place][0];
  answers[id] = { choice, note: at('note').value, seconds: Math.round((Date.now() - began) / 1000) };
  keep(); go(1);
}
function go(step) { place = Math.min(order.length - 1, Math.max(0, place + step)); show(); }
function save() {
  const found = order.filter(([id]) => (answers[id] || {}).choice)
    .map(([id, turned]) => ({ item: id, turned, ...answers[id] }));
  const text = JSON.stringify({ sheet: sheet.sheet, rater, answers: found }, null, 1);
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], { type: 'application/json' }));
  link.download = 'answers-' + rater + '.json'; link.click(); URL.revokeObjectURL(link.href);
}
at('note').addEventListener('input', () => {
  const id = order[place][0];
  answers[id] = { ...answers[id], note: at('note').value }; keep();
});
for (const one of document.querySelectorAll('[data-choice]'))
  one.addEventListener('click', () => choose(one.dataset.choice));
at('back').addEventListener('click', () => go(-1)); at('next').addEventListener('click', () => go(1));
at('save').addEventListener('click', save);
const keys = { ArrowLeft: () => choose('left'), ArrowRight: () => choose('right'), '=': () => choose('tie'),
  x: () => choose('neither'), b: () => go(-1), s: () => go(1), a: save, n: () => at('note').focus() };
document.addEventListener('keydown', event => {
  if (!rater || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target === at('note')) { if (event.key === 'Escape') at('note').blur(); return; }
  if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
});
sheet.orders.forEach((_, number) => {
  const button = document.createElement('button');
  button.textContent = String(number + 1); button.addEventListener('click', () => start(number + 1));
  at('raters').append(button);
});
"""


def render(shown: Mapping[str, Any]) -> str:
    """The page of a sheet."""
    # In JSON these characters mean the same as their escapes; in HTML they would end the element.
    data = json.dumps(shown, ensure_ascii=False).replace("<", "\\u003c").replace("&", "\\u0026")
    policy = f"default-src 'none'; script-src {digest(_SCRIPT)}; style-src {digest(_STYLE)}"
    return (
        "<!DOCTYPE html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f'<meta http-equiv=Content-Security-Policy content="{policy}"><title>Which answer is better?</title>'
        f"<style>{_STYLE}</style></head>\n<body>{_BODY}<script id=data type=application/json>{data}</script>"
        f"<script>{_SCRIPT}</script></body></html>\n"
    )
