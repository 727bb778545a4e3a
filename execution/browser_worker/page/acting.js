// Finding elements, and making sure that they can be acted on.

const nextFrame = () => new Promise(done => { requestAnimationFrame(done); setTimeout(done, 50); });
const pause = ms => new Promise(done => setTimeout(done, ms));

function matches(el, wanted) {
  if (wanted.field && el.getAttribute('name') !== wanted.field && el.id !== wanted.field) return false;
  if (wanted.role && roleOf(el) !== wanted.role && !(wanted.role === 'switch' && el.type === 'checkbox') && !(wanted.role === 'textbox' && /^(searchbox|spinbutton)$/.test(roleOf(el)))) return false;
  if (!wanted.name) return true;
  const name = fold(wanted.name);
  return fold(isField(el) ? fieldLabel(el) : nameOf(el)) === name || !isControl(el) && fold(nameOf(el, true)) === name;
}

function* candidates(wanted) {
  for (const el of elementsIn(document)) {
    if (wanted.css && !el.matches(wanted.css)) continue;
    if (wanted.field && !wanted.css && !wanted.role && !isField(el) && !isControl(el)) continue;
    if (matches(el, wanted)) yield el;
  }
}

// Numbers of the elements that a locator describes and a person could act on; the buttons of a radio group count as one field.
function locate(wanted) {
  try { if (wanted.css) document.querySelector(wanted.css); } catch { return { invalid: true, nodes: [], hidden: 0, seen: [] }; }
  const found = [], groups = new Set();
  let hidden = 0;
  for (const el of candidates(wanted)) {
    if (!operable(el)) { hidden += 1; continue; }
    if (wanted.field && el.type === 'radio' && el.name && !wanted.name) { if (groups.has(el.name)) continue; groups.add(el.name); }
    found.push(el);
  }
  return { invalid: false, nodes: found.slice(0, 20).map(numberOf), hidden, seen: found.slice(0, 5).map(describe) };
}

function scrolledIntoView(el, box) {
  const middle = { x: (box.l + box.r) / 2, y: (box.t + box.b) / 2 };
  const inside = middle.x >= 0 && middle.y >= 0 && middle.x <= innerWidth && middle.y <= innerHeight;
  if (inside && hit(el, box)?.x !== undefined) return box;
  el.scrollIntoView({ block: 'center', inline: 'center', behavior: 'instant' });
  return boxOf(el);
}

// One look at whether an element can be acted on: {state, x, y, detail}.
async function look(number, needs) {
  let el = nodeOf(number);
  if (!el) return { state: 'STALE' };
  if (!displayed(el)) {
    const label = CHOICE_TYPES.has(el.type) ? [...el.labels || []].find(displayed) : null;
    if (!label && !operable(el)) return { state: 'HIDDEN', detail: describe(el) };
    el = label || el;
  }
  if (needs.enabled && isDisabled(nodeOf(number))) return { state: 'DISABLED', detail: describe(el) };
  const box = scrolledIntoView(el, boxOf(el));
  await nextFrame();
  const now = boxOf(el);
  if (Math.abs(now.l - box.l) + Math.abs(now.t - box.t) + Math.abs(now.r - box.r) + Math.abs(now.b - box.b) > 1) return { state: 'COVERED', detail: `${describe(el)} is moving` };
  if (!needs.reached) return { state: 'OK', x: (now.l + now.r) / 2, y: (now.t + now.b) / 2 };
  const reached = hit(el, now);
  if (reached?.x === undefined) return { state: 'COVERED', detail: reached?.cover ? `${describe(reached.cover)} lies over ${describe(el)}` : `${describe(el)} cannot be scrolled into view` };
  return { state: 'OK', x: reached.x, y: reached.y };
}

// Playwright's actionability (visible, stable, enabled, receives events), tried again until it holds or patience ends.
async function ready(number, needs, patience) {
  const end = performance.now() + patience;
  for (;;) {
    const seen = await look(number, needs);
    if (seen.state === 'OK' || seen.state === 'STALE' || performance.now() >= end) return seen;
    await pause(30);
  }
}

// Where a frame's content begins in this document; scrolls the frame into view.
function frameOrigin(number) {
  const el = nodeOf(number);
  if (!el) return null;
  let box = el.getBoundingClientRect();
  if (box.bottom < 0 || box.top > innerHeight) { el.scrollIntoView({ block: 'center', behavior: 'instant' }); box = el.getBoundingClientRect(); }
  const style = getComputedStyle(el);
  return { x: box.left + el.clientLeft + parseFloat(style.paddingLeft), y: box.top + el.clientTop + parseFloat(style.paddingTop) };
}

function boxOfNode(number) {
  const el = nodeOf(number);
  if (!el) return null;
  el.scrollIntoView({ block: 'nearest', inline: 'nearest', behavior: 'instant' });
  const box = el.getBoundingClientRect();
  return { x: box.left, y: box.top, width: box.width, height: box.height };
}

// Why the browser itself would not submit the form of this element, else ''.
function submissionBarrier(number) {
  const el = nodeOf(number), form = el?.form || el?.closest?.('form');
  if (!form || form.noValidate || el.formNoValidate) return '';
  const bad = [...form.elements].find(control => control.willValidate && !control.validity.valid);
  return bad ? `${fieldLabel(bad) || bad.name}: ${bad.validationMessage}` : '';
}

function focusNode(number) {
  const el = nodeOf(number);
  if (!el) return false;
  el.focus();
  return holds(el, el.getRootNode().activeElement) || el === document.activeElement;
}

// Whether what is typed now arrives in this very document, and not in one of its frames.
function holdsFocus() {
  return document.hasFocus() && !/^I?FRAME$/.test(document.activeElement?.nodeName || '');
}

// Whose document this is, also for one that a page wrote into a frame; "null" when it is nobody's.
function originOf() {
  return self.origin;
}

function scrollNode(number, dx, dy) {
  const target = number ? nodeOf(number) : document.scrollingElement;
  if (!target) return null;
  if (number && !dx && !dy) target.scrollIntoView({ block: 'center', behavior: 'instant' });
  else scroller(target, dx, dy).scrollBy({ left: dx, top: dy, behavior: 'instant' });
  return { x: scrollX, y: scrollY };
}

function scroller(el, dx, dy) {
  for (let at = el; at && at !== document.documentElement; at = composedParent(at)) {
    if (at.nodeType !== 1) continue;
    const style = getComputedStyle(at);
    if (dy && /auto|scroll/.test(style.overflowY) && at.scrollHeight > at.clientHeight) return at;
    if (dx && /auto|scroll/.test(style.overflowX) && at.scrollWidth > at.clientWidth) return at;
  }
  return document.scrollingElement;
}

// Resolves when the document has not changed for so long, or when the time is up: whether it was quiet.
function quiet(stillness, limit) {
  return new Promise(done => {
    let timer = 0;
    const end = result => { clearTimeout(timer); clearTimeout(last); observer.disconnect(); done(result); };
    const again = () => { clearTimeout(timer); timer = setTimeout(() => end(true), stillness); };
    const observer = new MutationObserver(again);
    const last = setTimeout(() => end(false), limit);
    observer.observe(document, { subtree: true, childList: true, characterData: true, attributes: true });
    again();
  });
}

// Resolves at the next change of the document, or when the time is up.
function changed(limit) {
  return new Promise(done => {
    const end = result => { clearTimeout(last); observer.disconnect(); done(result); };
    const observer = new MutationObserver(() => end(true));
    const last = setTimeout(() => end(false), limit);
    observer.observe(document, { subtree: true, childList: true, characterData: true, attributes: true });
  });
}
