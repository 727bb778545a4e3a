// The observation: one line an element or paragraph, computed inside the page, because moving trees out of the
// browser is what makes other observations slow.

const LANDMARKS = { NAV: 'nav', MAIN: 'main', ASIDE: 'aside', HEADER: 'header', FOOTER: 'footer', DIALOG: 'dialog', FORM: 'form', TABLE: 'table' };
const LANDMARK_ROLES = new Set(['dialog', 'alertdialog', 'alert', 'status', 'navigation', 'main', 'search', 'menu', 'tablist', 'tree', 'grid', 'toolbar', 'region']);
const CONTAINERS = new Set(['focusable', 'clickable', 'draggable', 'treeitem', 'listbox', 'gridcell', 'label', 'option', 'menuitem', 'tab']);
const STATES = ['expanded', 'selected', 'checked', 'pressed', 'current', 'invalid'];
const MAX_INDENT = 6;

// Text of the page may not look like one of our own lines or close a quote.
const plain = text => text.replace(/^(?=\[|#{1,6} )/, '\\');
const quoted = text => '"' + text.replace(/"/g, "'") + '"';

// Takes {prefix, room (characters), seesAll, root (node number), view, textLimit}; room is what the lines may use.
function snapshot(options) {
  const seesAll = options.seesAll, view = seesAll ? WHOLE : options.view || viewport();
  const textLimit = options.textLimit || 400;
  const lines = [], frames = [];
  let used = 0, above = 0, below = 0, covered = 0, listed = 0, full = false;
  let text = '', textIndent = 0;

  function put(indent, line) {
    const size = Math.min(indent, MAX_INDENT) + line.length + 1;
    if (full || used + size > options.room) { full = true; return false; }
    used += size;
    lines.push('\t'.repeat(Math.min(indent, MAX_INDENT)) + line);
    return true;
  }
  function flush() {
    const line = squeeze(text);
    text = '';
    if (line && !/^[|\s]+$/.test(line)) put(textIndent, plain(clip(line, textLimit)));
  }
  function addText(words, indent) {
    if (!text) textIndent = indent;
    text += words;
  }
  function leaveOut(box, count) {
    if (box.b <= view.t) above += count; else below += count;
  }

  function walk(node, indent, at, named) {
    for (let child = node.firstChild; child && !full; child = child.nextSibling) {
      if (child.nodeType === 1) element(child, indent, at, named);
      else if (child.nodeType === 3 && !named && /\S/.test(child.data) && readable(child, at)) addText(child.data, indent);
    }
  }
  function walkInto(el, indent, at, named) {
    if (el.nodeName === 'SLOT' && el.assignedNodes().length) {
      for (const node of el.assignedNodes()) {
        if (node.nodeType === 1) element(node, indent, at, named);
        else if (node.nodeType === 3 && !named && readable(node, at)) addText(node.data, indent);
      }
    } else walk(el.shadowRoot || el, indent, at, named);
  }

  // Whole subtrees outside the view are passed over before anything else is asked of them, which keeps a page of
  // 35,000 elements quick.
  function outOfView(el) {
    if (seesAll || !el.firstElementChild) return false;
    const box = boxOf(el);
    if (!tiny(meet({ l: box.l - 1, t: box.t - 1, r: box.r + 1, b: box.b + 1 }, view)) || el.clientHeight === 0) return false;
    const contained = el.scrollHeight <= el.clientHeight + 1 || getComputedStyle(el).overflowY !== 'visible';
    if (contained) leaveOut(box, el.querySelectorAll(WIDGETS).length);
    return contained;
  }

  // A page can make any one of its elements throw (a field named "getAttribute" does); it loses that element only.
  function element(el, indent, outer, named) {
    try { visit(el, indent, outer, named); } catch { flush(); }
  }
  function visit(el, indent, outer, named) {
    if (outOfView(el)) return;
    const at = enter(el, outer);
    if (!at) return;
    const style = at.style, role = widgetRole(el, style, outer.style?.cursor);
    if (role && style.visibility === 'visible' && el.getAttribute('aria-hidden') !== 'true') {
      if (widget(el, role, indent, at, named)) return;
    } else if (!named && structure(el, indent, at)) return;
    // A field's line bears its label already.
    if (el.nodeName === 'LABEL' && !named && el.control && isControl(el.control) && operable(el.control)) { flush(); walkInto(el, indent, at, true); return; }
    const block = style.display !== 'inline' && style.display !== 'contents' && !named;
    const cell = el.nodeName === 'TD' || el.nodeName === 'TH';
    if (block) { if (!cell) flush(); else if (text) addText(' | ', indent); }
    if (el.nodeName === 'IMG') { if (!named && el.alt && shows(boxOf(el), at)) addText(` (image ${clip(squeeze(el.alt), 60)}) `, indent); return; }
    walkInto(el, indent, at, named);
    if (block && !cell) flush();
  }

  // Headings and landmarks. True when the element is done with.
  function structure(el, indent, at) {
    const level = /^H([1-6])$/.exec(el.nodeName);
    if (level) {
      if (!shows(boxOf(el), at)) return false;
      flush();
      const title = innerName(el, true);
      if (title) put(indent, '#'.repeat(Number(level[1])) + ' ' + clip(title, NAME_LIMIT));
      walkInto(el, indent + 1, at, true);
      return true;
    }
    const role = el.getAttribute('role');
    const landmark = role && LANDMARK_ROLES.has(role) ? role : LANDMARKS[el.nodeName];
    if (!landmark) return false;
    flush();
    const label = squeeze(el.getAttribute('aria-label') || el.querySelector?.(':scope > caption')?.textContent || '');
    const mark = lines.length, before = used;
    put(indent, landmark + (label ? ' ' + quoted(clip(label, 60)) : '') + ':');
    walkInto(el, indent + 1, at, false);
    flush();
    if (lines.length === mark + 1) { lines.pop(); used = before; }
    return true;
  }

  // One thing that can be acted on. True when what is in it is done with too.
  function widget(el, role, indent, at, named) {
    let box = boxOf(el);
    if (tiny(box) && el.firstElementChild && role !== 'iframe') box = boxOf(el.firstElementChild);
    if (tiny(box)) return false;
    if (!shows(box, at)) {
      if (!seesAll) leaveOut(box, 1);
      return !seesAll && !overflows(el);
    }
    const onScreen = !tiny(meet(box, viewport()));
    const reached = onScreen ? hit(el, box) : null;
    if (onScreen && !reached?.x && role !== 'file') { covered += 1; return true; }
    const name = isControl(el) ? fieldLabel(el) || squeeze(el.name || '') : nameOf(el, true);
    if (named && !name && (role === 'clickable' || role === 'focusable')) { walkInto(el, indent, at, named); return true; }
    flush();
    const parts = [`[${options.prefix}${numberOf(el)}] ${role}`];
    const given = el.hasAttribute('aria-label') || el.hasAttribute('aria-labelledby');
    const opens = !isControl(el) && (name.length > NAME_LIMIT || CONTAINERS.has(role) && given);
    if (name && !(opens && !given)) parts.push(quoted(clip(name, NAME_LIMIT)));
    parts.push(...stateOf(el, role));
    listed += 1;
    if (!put(indent, parts.join(' ') + (opens ? ':' : ''))) return true;
    if (role === 'iframe') { frames.push({ line: lines.length - 1, node: numberOf(el), indent: indent + 1, view: inside(el, at) }); return true; }
    if (isControl(el) || isEditor(el)) return true;
    walkInto(el, indent + 1, at, opens ? false : true);
    if (opens) flush();
    return true;
  }
  function overflows(el) {
    return el.scrollHeight > el.clientHeight + 1 || el.scrollWidth > el.clientWidth + 1 || el.clientHeight === 0;
  }
  // The part of a frame that is in view, in the frame's own coordinates.
  function inside(el, at) {
    const box = boxOf(el), left = box.l + el.clientLeft, top = box.t + el.clientTop;
    const seen = meet(meet(box, at.clip), seesAll ? WHOLE : viewport());
    return { l: seen.l - left, t: seen.t - top, r: seen.r - left, b: seen.b - top };
  }

  let root = document.body, at = start(seesAll, view);
  if (options.root) {
    root = nodeOf(options.root);
    if (!root) return { lines, frames, above, below, covered, truncated: false, url: location.href, title: document.title };
    root.scrollIntoView({ block: 'nearest', behavior: 'instant' });
  }
  if (root?.nodeName === 'FRAMESET') walkInto(root, 0, at, false);
  else if (root) element(root, 0, at, false);
  flush();
  if (full) below += Math.max(0, document.querySelectorAll(WIDGETS).length - listed - above - below - covered);
  const scroller = document.scrollingElement || document.documentElement;
  return {
    lines, frames, above, below, covered, truncated: full, url: location.href, title: clip(squeeze(document.title), 200), used,
    scroll: [Math.round(scrollY), Math.max(0, Math.round((scroller?.scrollHeight || 0) - innerHeight))],
  };
}

function stateOf(el, role) {
  const states = [];
  if (el.nodeName === 'INPUT' || el.nodeName === 'TEXTAREA') {
    const type = el.type;
    if (type === 'checkbox' || type === 'radio') { if (el.checked) states.push('checked'); }
    else if (type === 'password') { states.push(el.value ? 'password ="•••"' : 'password'); }
    else if (!BUTTON_TYPES.has(type)) {
      if (role === 'textbox' && type !== 'text' && type !== 'textarea') states.push(type);
      if (el.value) states.push('=' + quoted(clip(squeeze(shownValue(el)), 120)));
    }
    if (el.required) states.push('required');
    if (el.readOnly) states.push('readonly');
    if (el.placeholder && !el.value && nameOf(el) !== squeeze(el.placeholder)) states.push('hint ' + quoted(clip(squeeze(el.placeholder), 60)));
  } else if (el.nodeName === 'SELECT') {
    const chosen = [...el.selectedOptions].map(option => squeeze(option.text)).join(', ');
    states.push('=' + quoted(clip(chosen, 60)) + ' of ' + el.options.length + (el.options.length <= 12 ? ': ' + [...el.options].map(option => clip(squeeze(option.text), 24)).join('|') : ''));
    if (el.required) states.push('required');
  } else if (isEditor(el)) states.push('=' + quoted(clip(innerName(el, true), 120)));
  if (isDisabled(el)) states.push('disabled');
  for (const state of STATES) {
    const value = el.getAttribute('aria-' + state);
    if (value && value !== 'false') states.push(state + (value === 'true' ? '' : '=' + clip(value, 20)));
    else if (value === 'false' && state === 'expanded') states.push('collapsed');
  }
  if (el === el.getRootNode().activeElement) states.push('focused');
  return states;
}

// A value that the worker was told to keep secret reads as dots, as a password does.
const secretFields = new WeakSet();
function shownValue(el) {
  return secretFields.has(el) ? '•••' : el.value;
}
