// What elements are: role, accessible name, description, references. The files of this folder are joined into one
// function that runs in an isolated world of every frame, so that the page can neither see nor change it.

const SKIPPED = new Set(['SCRIPT', 'STYLE', 'TEMPLATE', 'NOSCRIPT', 'HEAD', 'LINK', 'META', 'svg', 'BR', 'HR', 'OPTION', 'DATALIST']);
const TAG_ROLES = {
  A: 'link', BUTTON: 'button', SELECT: 'combobox', TEXTAREA: 'textbox', SUMMARY: 'button', IFRAME: 'iframe', FRAME: 'iframe',
  CANVAS: 'canvas', VIDEO: 'video', AUDIO: 'audio', IMG: 'img', DIALOG: 'dialog', NAV: 'navigation', MAIN: 'main', ASIDE: 'complementary',
  TABLE: 'table', TR: 'row', TD: 'cell', TH: 'columnheader', UL: 'list', OL: 'list', LI: 'listitem', FORM: 'form', OPTION: 'option',
  H1: 'heading', H2: 'heading', H3: 'heading', H4: 'heading', H5: 'heading', H6: 'heading', FIELDSET: 'group', PROGRESS: 'progressbar',
};
const INPUT_ROLES = {
  checkbox: 'checkbox', radio: 'radio', button: 'button', submit: 'button', reset: 'button', image: 'button', range: 'slider',
  file: 'file', search: 'searchbox', number: 'spinbutton',
};
const WIDGET_ROLES = new Set(['button', 'link', 'checkbox', 'radio', 'switch', 'tab', 'menuitem', 'menuitemcheckbox', 'menuitemradio', 'option',
  'combobox', 'listbox', 'textbox', 'searchbox', 'slider', 'spinbutton', 'treeitem', 'gridcell', 'scrollbar']);
const WIDGETS = 'a[href],button,input:not([type=hidden]),select,textarea,summary,[onclick],[tabindex],[contenteditable=""],[contenteditable=true],' +
  [...WIDGET_ROLES].map(role => `[role=${role}]`).join(',');
const BUTTON_TYPES = new Set(['button', 'submit', 'reset', 'image']);
const CHOICE_TYPES = new Set(['checkbox', 'radio', 'file']);
const NAME_LIMIT = 120;

const mapped = (functions, wrap) => Object.fromEntries(Object.entries(functions).map(([name, call]) => [name, wrap(call)]));
const clip = (text, limit) => text.length > limit ? text.slice(0, limit - 1) + '…' : text;
const squeeze = text => text.replace(/\s+/g, ' ').trim();
const fold = text => squeeze(text).toLowerCase().replace(/[\s:*]+$/, '');
const composedParent = node => node.assignedSlot || node.parentNode || node.host || null;
const isControl = el => el.nodeName === 'INPUT' || el.nodeName === 'SELECT' || el.nodeName === 'TEXTAREA';

function holds(ancestor, node) {
  for (let at = node; at; at = composedParent(at)) if (at === ancestor) return true;
  return false;
}

// Every element below a root, through open shadow roots.
function* elementsIn(root) {
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_ELEMENT);
  if (root.shadowRoot) yield* elementsIn(root.shadowRoot);
  for (let el = walker.nextNode(); el; el = walker.nextNode()) {
    yield el;
    if (el.shadowRoot) yield* elementsIn(el.shadowRoot);
  }
}

function labelledBy(el, attribute) {
  const ids = el.getAttribute(attribute);
  if (!ids) return '';
  const root = el.getRootNode();
  return squeeze(ids.split(/\s+/).map(id => root.getElementById?.(id)?.textContent || '').join(' '));
}

// Text inside an element as its name: what is displayed, or also what only a screen reader is told.
function innerName(el, displayedOnly) {
  let name = '';
  const visit = node => {
    for (let child = node.firstChild; child && name.length < 400; child = child.nextSibling) {
      if (child.nodeType === 3) name += child.data;
      else if (child.nodeType === 1) visitElement(child);
    }
  };
  const visitElement = child => {
    if (SKIPPED.has(child.nodeName)) { name += ' '; return; }
    if (child.getAttribute('aria-hidden') === 'true' && !displayedOnly) return;
    const style = getComputedStyle(child);
    if (style.display === 'none' || style.visibility === 'hidden') return;
    if (displayedOnly && concealed(child, style)) return;
    const apart = style.display !== 'inline' ? ' ' : '';
    name += apart;
    if (child.nodeName === 'IMG') name += ' ' + (child.alt || '') + ' ';
    else if (isControl(child)) name += BUTTON_TYPES.has(child.type) ? ' ' + child.value + ' ' : ' ';
    else if (child.nodeName === 'SLOT') for (const each of child.assignedNodes()) { if (each.nodeType === 3) name += each.data; else if (each.nodeType === 1) visitElement(each); }
    else visit(child.shadowRoot || child);
    name += apart;
  };
  visit(el.shadowRoot || el);
  return squeeze(name);
}

// `labels` searches the whole document each time; here it is searched once a call.
const labelIndex = new Map();
function labelsOf(el) {
  const root = el.getRootNode();
  let index = labelIndex.get(root);
  if (!index) {
    labelIndex.set(root, index = new Map());
    for (const label of root.querySelectorAll?.('label') || []) {
      if (label.control) index.set(label.control, [...index.get(label.control) || [], label]);
    }
  }
  return index.get(el) || [];
}

function labelOf(el) {
  for (const label of labelsOf(el)) { const text = innerName(label, false); if (text) return text; }
  return '';
}

// Text beside an unlabelled field: the cell or text before it.
function textBeside(el) {
  const cell = el.closest('td')?.previousElementSibling;
  if (cell && !cell.querySelector('input,select,textarea')) { const text = innerName(cell, true); if (text && text.length <= 60) return text; }
  for (let before = el.previousSibling; before; before = before.previousSibling) {
    if (before.nodeType === 1 && isControl(before)) return '';
    const text = squeeze(before.textContent || '');
    if (text) return text.length <= 60 ? text : '';
  }
  return '';
}

// Accessible name (a practical subset of https://www.w3.org/TR/accname-1.2/).
function nameOf(el, displayedOnly = false) {
  const given = labelledBy(el, 'aria-labelledby') || squeeze(el.getAttribute('aria-label') || '');
  if (given) return given;
  if (el.nodeName === 'INPUT' && BUTTON_TYPES.has(el.type)) return squeeze(el.value || el.alt || el.title || (el.type === 'submit' ? 'Submit' : el.type === 'reset' ? 'Reset' : ''));
  if (isControl(el)) return labelOf(el) || squeeze(el.title || el.placeholder || '');
  if (el.nodeName === 'IFRAME' || el.nodeName === 'FRAME') return squeeze(el.title || el.name || '');
  if (el.nodeName === 'IMG') return squeeze(el.alt || el.title || '');
  if (el.nodeName === 'FIELDSET') return squeeze(el.querySelector('legend')?.textContent || '');
  return innerName(el, displayedOnly) || (displayedOnly ? innerName(el, false) : '') ||
    squeeze(el.querySelector?.('svg title')?.textContent || el.title || el.getAttribute('data-tooltip') || '');
}

// The name a person is shown for a field: the accessible name, else what stands beside it.
function fieldLabel(el) {
  return nameOf(el) || textBeside(el);
}

function roleOf(el) {
  const role = el.getAttribute('role')?.trim().split(/\s+/)[0];
  if (role && role !== 'presentation' && role !== 'none') return role;
  if (el.nodeName === 'INPUT') return el.type === 'hidden' ? '' : INPUT_ROLES[el.type] || 'textbox';
  if (el.nodeName === 'A') return el.hasAttribute('href') ? 'link' : '';
  if (el.nodeName === 'SELECT') return el.multiple || el.size > 1 ? 'listbox' : 'combobox';
  return TAG_ROLES[el.nodeName] || (isEditor(el) ? 'textbox' : '');
}

function isEditor(el) {
  return el.isContentEditable && !el.parentElement?.isContentEditable;
}

// The role of what can be acted on, else ''. Looks beyond roles, because many pages make widgets of plain elements.
function widgetRole(el, style, parentCursor) {
  const tag = el.nodeName, role = el.getAttribute('role');
  if (tag === 'INPUT') return el.type === 'hidden' ? '' : role && WIDGET_ROLES.has(role) ? role : INPUT_ROLES[el.type] || 'textbox';
  if (tag === 'BUTTON' || tag === 'SELECT' || tag === 'TEXTAREA') return role && WIDGET_ROLES.has(role) ? role : roleOf(el);
  if (tag === 'A' && el.hasAttribute('href')) return role && WIDGET_ROLES.has(role) ? role : 'link';
  if (tag === 'SUMMARY' || tag === 'IFRAME' || tag === 'FRAME' || tag === 'CANVAS' || tag === 'VIDEO' || tag === 'AUDIO') return TAG_ROLES[tag];
  if (role && WIDGET_ROLES.has(role)) return role;
  if (isEditor(el)) return 'textbox';
  if (el.hasAttribute('onclick')) return 'clickable';
  if (el.hasAttribute('tabindex') && el.tabIndex >= 0) return 'focusable';
  if (tag === 'LABEL') return el.control && !displayed(el.control) ? 'label' : '';
  if (el.draggable && tag !== 'IMG' && tag !== 'A') return 'draggable';
  return style.cursor === 'pointer' && parentCursor !== 'pointer' ? 'clickable' : '';
}

function isDisabled(el) {
  return el.matches(':disabled') || el.getAttribute('aria-disabled') === 'true';
}

// References: a number for the life of a node. A node that a framework replaced is found again only if exactly one
// element is identical in all that identified it.
const numbers = new WeakMap(), known = new Map();
let lastNumber = 0;

function identity(el) {
  return [el.nodeName, roleOf(el), nameOf(el), el.id, el.getAttribute('name') || '', el.getAttribute('type') || '', el.getAttribute('href') || '',
    isControl(el) && (el.type === 'radio' || el.type === 'checkbox') ? el.value : ''].join('\u0000');
}

function numberOf(el) {
  let number = numbers.get(el);
  if (number) return number;
  number = ++lastNumber;
  numbers.set(el, number);
  known.set(number, { node: new WeakRef(el), identity: identity(el) });
  return number;
}

function nodeOf(number) {
  const entry = known.get(number);
  if (!entry) return null;
  const node = entry.node.deref();
  if (node?.isConnected) return node;
  const tag = entry.identity.split('\u0000', 1)[0];
  const same = [...elementsIn(document)].filter(el => el.nodeName === tag && displayed(el) && identity(el) === entry.identity);
  if (same.length !== 1) return null;
  entry.node = new WeakRef(same[0]);
  if (!numbers.has(same[0])) numbers.set(same[0], number);
  return same[0];
}

function describe(el) {
  const name = clip(nameOf(el), 60), id = el.id ? '#' + el.id : '';
  return `${roleOf(el) || el.nodeName.toLowerCase()}${id}${name ? ` "${name}"` : ''}`;
}
