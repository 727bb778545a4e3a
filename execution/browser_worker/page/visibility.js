// What a person can see. Everything that leaves the page as text passes through here, because hidden text is how
// pages talk to agents behind people's backs.

const WHOLE = { l: -1e9, t: -1e9, r: 1e9, b: 1e9 };

function boxOf(el) {
  const box = el.getBoundingClientRect();
  return { l: box.left, t: box.top, r: box.right, b: box.bottom };
}

const meet = (a, b) => ({ l: Math.max(a.l, b.l), t: Math.max(a.t, b.t), r: Math.min(a.r, b.r), b: Math.min(a.b, b.b) });
const tiny = box => box.r - box.l < 2 || box.b - box.t < 2;
const viewport = () => ({ l: 0, t: 0, r: innerWidth, b: innerHeight });

function alphaOf(color) {
  const parts = /^rgba\([^)]*,\s*([\d.]+)\)$/.exec(color);
  return color === 'transparent' ? 0 : parts ? Number(parts[1]) : 1;
}

// Clipped or faded away while still in the layout, as "screen reader only" classes do.
function concealed(el, style) {
  if (Number(style.opacity) < 0.05) return true;
  if (/^rect\((0|1)px, (0|1)px, (0|1)px, (0|1)px\)$/.test(style.clip)) return true;
  if (/^(inset\((50|100)%\)|circle\(0(px|%)?( at .*)?\))$/.test(style.clipPath)) return true;
  if (style.overflowX === 'visible' || style.display === 'inline') return false;
  const box = el.getBoundingClientRect();
  return box.width < 2 || box.height < 2;
}

// Whether an element has a box that is painted somewhere.
function displayed(el) {
  if (!el.isConnected || !el.checkVisibility({ visibilityProperty: true, opacityProperty: true })) return false;
  const box = el.getBoundingClientRect();
  return box.width > 1 && box.height > 1 && box.right + scrollX > 0 && box.bottom + scrollY > 0;
}

// Whether a person could act on an element: displayed, or a choice that shows through its label.
function operable(el) {
  if (displayed(el)) return true;
  if (el.nodeName !== 'INPUT' || !CHOICE_TYPES.has(el.type)) return false;
  return [...el.labels || []].some(displayed) || el.checkVisibility({ visibilityProperty: true }) && !tiny(boxOf(el));
}

function elementAt(x, y) {
  let el = document.elementFromPoint(x, y);
  while (el?.shadowRoot) {
    const inner = el.shadowRoot.elementFromPoint(x, y);
    if (!inner || inner === el) break;
    el = inner;
  }
  return el;
}

// A point of the element where a click would reach it: {x, y}; {cover} when something lies over it; null off screen.
function hit(el, box) {
  const seen = meet(box, viewport());
  if (seen.r - seen.l < 1 || seen.b - seen.t < 1) return null;
  let cover = null;
  for (const [fx, fy] of [[.5, .5], [.15, .5], [.85, .5], [.5, .2], [.5, .8]]) {
    const x = seen.l + (seen.r - seen.l) * fx, y = seen.t + (seen.b - seen.t) * fy, top = elementAt(x, y);
    for (let at = top; at; at = composedParent(at)) if (at === el || at.nodeName === 'LABEL' && at.control === el) return { x, y };
    cover ||= top;
  }
  return { cover };
}

// Where a walk stands: what clips what is painted here, and on what colour.
function start(seesAll, view) {
  return { clip: view, positioned: view, view, seesAll, ground: null, style: null, scrolled: false };
}

// Steps into an element; null when nothing in it is visible.
function enter(el, at) {
  if (SKIPPED.has(el.nodeName)) return null;
  const style = getComputedStyle(el);
  if (style.display !== 'contents' && !el.checkVisibility()) return null;
  if (Number(style.opacity) < 0.05 || style.clip !== 'auto' || style.clipPath !== 'none') {
    const choice = el.nodeName === 'INPUT' && CHOICE_TYPES.has(el.type);
    if (!choice && concealed(el, style)) return null;
  }
  let clip = style.position === 'fixed' ? at.view : style.position === 'absolute' ? at.positioned : at.clip;
  let scrolled = at.scrolled;
  const rootLike = el === document.body || el === document.documentElement;
  if (!rootLike && style.display !== 'inline' && (style.overflowX !== 'visible' || style.overflowY !== 'visible')) {
    const scrolls = /auto|scroll/.test(style.overflowX + style.overflowY);
    if (at.seesAll && scrolls) scrolled = true; else clip = meet(clip, boxOf(el));
  }
  const positioned = style.position !== 'static' || style.transform !== 'none' ? clip : at.positioned;
  const ground = style.backgroundImage !== 'none' ? null : alphaOf(style.backgroundColor) > .98 ? style.backgroundColor : at.ground;
  return { clip, positioned, view: at.view, seesAll: at.seesAll, ground, style, scrolled };
}

// Whether a box can be seen, or in a walk that sees all, reached by scrolling.
function shows(box, at) {
  if (tiny(meet(box, at.clip))) return false;
  return !at.seesAll || at.scrolled || box.r + scrollX > 0 && box.b + scrollY > 0;
}

function paintsOver(el) {
  const style = getComputedStyle(el);
  if (Number(style.opacity) < .9) return false;
  if (/^(IMG|VIDEO|CANVAS|IFRAME|OBJECT|EMBED)$/.test(el.nodeName)) return true;
  return style.backgroundImage !== 'none' || alphaOf(style.backgroundColor) >= .9;
}

function paintedOver(parent, box) {
  const seen = meet(box, viewport());
  const x = (seen.l + seen.r) / 2, y = (seen.t + seen.b) / 2, top = elementAt(x, y);
  if (!top || holds(top, parent) || holds(parent, top)) return false;
  for (const el of document.elementsFromPoint(x, y)) {
    if (holds(el, parent) || holds(parent, el)) return false;
    if (paintsOver(el)) return true;
  }
  return false;
}

const ranger = document.createRange();

// Whether a text node is painted where a person can read it.
function readable(node, at) {
  const style = at.style;
  if (node.parentNode.nodeName === 'DETAILS' && !node.parentNode.open) return false;
  if (style && (style.visibility !== 'visible' || parseFloat(style.fontSize) < 3)) return false;
  ranger.selectNodeContents(node);
  const box = boxOf(ranger);
  if (tiny(box) || !shows(box, at)) return false;
  if (style && style.webkitBackgroundClip !== 'text' && style.webkitTextSecurity === 'none') {
    if (alphaOf(style.webkitTextFillColor) < .05 || at.ground && style.color === at.ground && style.textShadow === 'none') return false;
  }
  if (at.seesAll || tiny(meet(box, viewport()))) return true;
  const parent = node.parentNode.nodeType === 11 ? node.parentNode.host : node.parentNode;
  return !paintedOver(parent, box);
}
