// Content for people and programs: Markdown, text, tables. Only what can be seen.

function readText(options) {
  const root = options.root ? nodeOf(options.root) : document.body;
  if (!root) return null;
  const markdown = options.markdown, blocks = [];
  let line = '', size = 0, truncated = false;

  function flush(prefix = '') {
    const words = squeeze(line);
    line = '';
    if (words) put(prefix + words);
  }
  function put(block) {
    if (size + block.length + 2 > options.room) {
      if (!truncated) blocks.push(block.slice(0, Math.max(0, options.room - size)));
      truncated = true;
      return;
    }
    size += block.length + 2;
    blocks.push(block);
  }
  function walk(node, at, prefix) {
    for (let child = node.firstChild; child && !truncated; child = child.nextSibling) {
      if (child.nodeType === 3) { if (/\S/.test(child.data) && readable(child, at)) line += child.data; else if (line) line += ' '; }
      else if (child.nodeType === 1) element(child, at, prefix);
    }
  }
  function element(el, outer, prefix) {
    const at = enter(el, outer);
    if (!at) { if (el.nodeName === 'BR') line += ' '; return; }
    const tag = el.nodeName, inline = at.style.display.startsWith('inline') || at.style.display === 'contents';
    if (tag === 'TABLE' && markdown && !el.querySelector('table')) { flush(prefix); table(el, outer); return; }
    if (tag === 'A' && markdown && el.hasAttribute('href')) { linked(el, at, prefix); return; }
    if (tag === 'IMG') { if (el.alt && shows(boxOf(el), at)) line += markdown ? ` ![${squeeze(el.alt)}] ` : ` ${el.alt} `; return; }
    if (isControl(el)) { if (el.type !== 'hidden' && el.type !== 'password' && shows(boxOf(el), at)) line += ' ' + (BUTTON_TYPES.has(el.type) ? el.value : el.nodeName === 'SELECT' ? valueOf(el) : isChoice(el) ? '' : shownValue(el)) + ' '; return; }
    const level = /^H([1-6])$/.exec(tag);
    const inner = level ? (markdown ? '#'.repeat(Number(level[1])) + ' ' : '') : tag === 'LI' && markdown ? '- ' : tag === 'BLOCKQUOTE' && markdown ? '> ' : prefix;
    if (!inline) flush(prefix);
    if (tag === 'PRE' && markdown) { const code = el.innerText.trimEnd(); if (code) put('```\n' + code + '\n```'); return; }
    if (tag === 'SLOT' && el.assignedNodes().length) for (const node of el.assignedNodes()) { if (node.nodeType === 1) element(node, at, inner); else if (node.nodeType === 3 && readable(node, at)) line += node.data; }
    else walk(el.shadowRoot || el, at, inner);
    if (inline) { if (at.style.display !== 'inline') line += ' '; return; }
    if (tag === 'TD' || tag === 'TH') line += '\u0020'; else flush(inner);
  }
  function linked(el, at, prefix) {
    const before = line;
    line = '';
    walk(el.shadowRoot || el, at, prefix);
    const words = squeeze(line);
    line = before + (words ? ` [${words}](${el.href.startsWith('javascript:') ? '' : el.href}) ` : '');
  }
  function table(el, outer) {
    const rows = rowsOf(el, outer);
    if (!rows.length) return;
    const cell = text => text.replace(/\|/g, '\\|');
    const text = rows.map((row, index) => '| ' + row.cells.map(cell).join(' | ') + ' |' + (index === 0 ? '\n|' + row.cells.map(() => ' --- |').join('') : ''));
    put(text.join('\n'));
  }
  element(root, start(true, WHOLE), '');
  flush();
  return { text: blocks.join('\n\n'), truncated, url: location.href, title: document.title };
}

function rowsOf(tableElement, outer = start(true, WHOLE)) {
  const rows = [];
  for (const row of tableElement.rows) {
    if (row.closest('table') !== tableElement || !displayed(row)) continue;
    const cells = [...row.cells].filter(cell => cell.checkVisibility()).map(cell => cellText(cell, outer));
    if (cells.length) rows.push({ cells, header: [...row.cells].every(cell => cell.nodeName === 'TH') || row.parentElement.nodeName === 'THEAD' });
  }
  return rows;
}

function cellText(cell, outer) {
  const control = cell.querySelector('input:not([type=hidden]),select,textarea');
  const words = innerName(cell, true);
  if (!control || words) return words;
  return control.type === 'password' || secretFields.has(control) || control.type === 'checkbox' && control.value === 'on' && !control.checked ? '' : valueOf(control);
}

function readTables(options) {
  const root = options.root ? nodeOf(options.root) : document.documentElement;
  if (!root) return null;
  const tables = [], found = root.nodeName === 'TABLE' ? [root] : [...elementsIn(root)].filter(el => el.nodeName === 'TABLE');
  let size = 0, truncated = false;
  for (const el of found) {
    if (!displayed(el)) continue;
    const rows = [];
    for (const row of rowsOf(el)) {
      size += row.cells.join('').length + row.cells.length;
      if (size > options.room) { truncated = true; break; }
      rows.push(row);
    }
    if (rows.length) tables.push({ caption: squeeze(el.caption?.textContent || el.getAttribute('aria-label') || ''), rows });
  }
  return { tables, truncated };
}

// Whether folded text can be read anywhere in the document.
function showsText(wanted) {
  return fold(readText({ markdown: false, room: 4e6 })?.text || '').includes(fold(wanted));
}
