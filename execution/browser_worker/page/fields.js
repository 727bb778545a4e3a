// Form fields: listing, setting, reading back.

const TRUE_WORDS = new Set(['true', 'yes', 'on', '1', 'x', 'checked', 'y']);
const isField = el => el.nodeName === 'SELECT' || el.nodeName === 'TEXTAREA' || isEditor(el) ||
  el.nodeName === 'INPUT' && el.type !== 'hidden' && !BUTTON_TYPES.has(el.type) ||
  !isControl(el) && /^(checkbox|switch|radio|combobox|textbox|spinbutton|slider)$/.test(el.getAttribute('role') || '') && !el.querySelector('input,select,textarea');

function radioGroup(el) {
  if (!el.name) return [el];
  return [...elementsIn(el.form || el.getRootNode())].filter(other => other.nodeName === 'INPUT' && other.type === 'radio' && other.name === el.name && other.form === el.form);
}

function groupLabel(el) {
  const group = el.closest('[role=radiogroup],fieldset');
  return (group && nameOf(group)) || squeeze(el.name || '');
}

const typeOf = el => el.nodeName === 'SELECT' ? 'select' : el.nodeName === 'TEXTAREA' ? 'textarea' : el.nodeName === 'INPUT' ? el.type : isEditor(el) ? 'contenteditable' : 'text';

function optionsOf(el) {
  if (el.nodeName === 'SELECT') return [...el.options].map(option => squeeze(option.text));
  if (el.type === 'radio' && el.name) return radioGroup(el).map(fieldLabel);
  return el.list ? [...el.list.options].map(option => option.value) : [];
}

// The value as a person would say it. A password leaves only when the worker compares it.
function valueOf(el) {
  if (el.nodeName === 'SELECT') return [...el.selectedOptions].map(option => squeeze(option.text)).join('\n');
  if (el.type === 'checkbox') return String(el.checked);
  if (el.type === 'radio') { const chosen = radioGroup(el).find(radio => radio.checked); return chosen ? fieldLabel(chosen) : ''; }
  if (isControl(el)) return el.value;
  const state = el.getAttribute('aria-checked');
  if (state) return state;
  return isEditor(el) ? el.innerText.replace(/\n$/, '') : el.getAttribute('aria-valuenow') || innerName(el, true);
}

function formFields(prefix, rootNumber) {
  const root = rootNumber ? nodeOf(rootNumber) : document.documentElement, seen = new Set(), fields = [];
  if (!root) return fields;
  const forms = [...document.forms];
  for (const el of elementsIn(root)) {
    if (!isField(el) || seen.has(el) || !operable(el)) continue;
    if (el.type === 'radio') radioGroup(el).forEach(radio => seen.add(radio));
    const secret = el.type === 'password' || secretFields.has(el);
    const hint = squeeze(el.placeholder || labelledBy(el, 'aria-describedby') || '');
    const form = el.form || el.closest?.('form');
    fields.push({
      ref: prefix + numberOf(el), label: clip(el.type === 'radio' && el.name ? groupLabel(el) : fieldLabel(el), 200), field: el.getAttribute('name') || el.id || '',
      role: el.type === 'radio' && el.name ? 'radiogroup' : roleOf(el), type: typeOf(el), autocomplete: el.getAttribute('autocomplete') || '', hint: clip(hint, 200),
      value: secret ? '' : clip(valueOf(el), 4000), required: !!el.required || el.getAttribute('aria-required') === 'true', disabled: isDisabled(el) || !!el.readOnly,
      options: optionsOf(el).slice(0, 1000), form: form ? forms.indexOf(form) : forms.length,
    });
  }
  return fields;
}

// What a field holds now, and what the page says is wrong with it.
function readField(number) {
  const el = nodeOf(number);
  if (!el) return { state: 'STALE' };
  return { state: 'OK', value: valueOf(el), raw: el.nodeName === 'SELECT' ? [...el.selectedOptions].map(o => o.value).join('\n') : el.type === 'radio' ? (radioGroup(el).find(r => r.checked)?.value ?? '') : '',
    type: typeOf(el), secret: el.type === 'password' || secretFields.has(el), error: errorOf(el) };
}

function errorOf(el) {
  const named = el.getAttribute('aria-invalid') === 'true' ? labelledBy(el, 'aria-errormessage') || labelledBy(el, 'aria-describedby') : '';
  if (named) return clip(named, 300);
  let around = el.parentElement;
  for (let level = 0; around && level < 3; level += 1, around = around.parentElement) {
    const controls = [...around.querySelectorAll('input:not([type=hidden]),select,textarea')];
    if (controls.some(other => other !== el && !(el.name && other.name === el.name))) break;
    const note = [...around.querySelectorAll('[role=alert],[class*=error i],[class*=invalid i]')].find(each => !each.contains(el) && displayed(each) && squeeze(each.textContent));
    if (note) return clip(innerName(note, true), 300);
  }
  return isControl(el) && el.matches(':user-invalid') ? clip(el.validationMessage, 300) : '';
}

function announce(el, ...kinds) {
  for (const kind of kinds) el.dispatchEvent(new Event(kind, { bubbles: true, composed: true }));
}

// Sets a value as typing would: through the editing commands, so that the page sees trusted input events.
function writeText(el, value) {
  const before = isControl(el) ? el.value : '';
  el.focus();
  if (isControl(el)) el.select?.(); else getSelection().selectAllChildren(el);
  const wanted = value.replace(/\r\n/g, '\n');
  const done = wanted ? document.execCommand('insertText', false, wanted) : document.execCommand('delete');
  if (isControl(el) && el.value !== wanted && (!done || el.value === before)) writeValue(el, wanted);
}

// Sets a value past any wrapper that a framework has put around it (this world has its own prototypes).
function writeValue(el, value) {
  const prototype = el.nodeName === 'TEXTAREA' ? HTMLTextAreaElement.prototype : HTMLInputElement.prototype;
  el.focus();
  Object.getOwnPropertyDescriptor(prototype, 'value').set.call(el, value);
  announce(el, 'input', 'change');
}

function chooseOptions(el, wanted) {
  const options = [...el.options];
  const chosen = wanted.map(text => options.find(o => squeeze(o.text) === squeeze(text)) || options.find(o => o.value === text) || options.find(o => fold(o.text) === fold(text)));
  const missing = wanted.find((_, index) => !chosen[index]);
  if (missing !== undefined) return { state: 'NOT_FOUND', detail: `no option ${JSON.stringify(missing)} among ${clip(options.map(o => squeeze(o.text)).join(' | '), 300)}` };
  const disabled = chosen.find(option => option.disabled);
  if (disabled) return { state: 'DISABLED', detail: `option ${JSON.stringify(squeeze(disabled.text))} is disabled` };
  el.focus();
  if (el.multiple) options.forEach(option => { option.selected = chosen.includes(option); }); else chosen[0].selected = true;
  announce(el, 'input', 'change');
  return { state: 'OK' };
}

// What a click must hit to give a choice the wanted state; null when it has it already.
function choiceToClick(el, value) {
  if (el.type === 'radio') {
    const group = radioGroup(el);
    const wanted = group.length === 1 && TRUE_WORDS.has(fold(value)) ? el :
      group.find(radio => fold(fieldLabel(radio)) === fold(value)) || group.find(radio => radio.value === value) || (TRUE_WORDS.has(fold(value)) ? el : null);
    if (!wanted) return { state: 'NOT_FOUND', detail: `no choice ${JSON.stringify(value)} among ${clip(group.map(fieldLabel).join(' | '), 300)}` };
    return { state: 'OK', node: wanted.checked ? 0 : numberOf(wanted) };
  }
  const checked = el.nodeName === 'INPUT' ? el.checked : el.getAttribute('aria-checked') === 'true';
  return { state: 'OK', node: checked === TRUE_WORDS.has(fold(value)) ? 0 : numberOf(el) };
}

const isChoice = el => el.type === 'checkbox' || el.type === 'radio' || !isControl(el) && /^(checkbox|switch|radio|menuitemcheckbox|menuitemradio)$/.test(el.getAttribute('role') || '');

// Sets one field. Choices are answered with the node to click, because only a click looks the same to every page.
function setField(number, value, secret) {
  const el = nodeOf(number);
  if (!el) return { state: 'STALE' };
  if (isDisabled(el)) return { state: 'DISABLED', detail: describe(el) };
  if (el.readOnly) return { state: 'DISABLED', detail: `${describe(el)} is read-only` };
  if (!operable(el)) return { state: 'HIDDEN', detail: describe(el) };
  if (isChoice(el)) return { ...choiceToClick(el, value), click: true };
  if (!displayed(el)) return { state: 'HIDDEN', detail: describe(el) };
  el.scrollIntoView({ block: 'nearest', behavior: 'instant' });
  if (secret) { secretFields.add(el); el.style.webkitTextSecurity = 'disc'; }
  if (el.nodeName === 'SELECT') return chooseOptions(el, el.multiple ? value.split('\n') : [value]);
  if (el.type === 'file') return { state: 'UNEXPECTED_STATE', detail: 'a file input takes files: use upload' };
  if (/^(date|time|datetime-local|month|week|color|range)$/.test(el.type)) { writeValue(el, value); return { state: 'OK' }; }
  if (isControl(el) || isEditor(el)) { writeText(el, value); return { state: 'OK' }; }
  return { state: 'UNEXPECTED_STATE', detail: `${describe(el)} is not a field` };
}

// Leaving a field is what makes a page check it.
function leaveField(number) {
  const el = nodeOf(number);
  if (el && el === el.getRootNode().activeElement) el.blur();
}

// Shows dots wherever the page repeats a secret, before a picture is taken.
function maskSecrets(secrets) {
  for (const el of elementsIn(document)) {
    const repeats = isControl(el) ? secrets.some(secret => el.value?.includes(secret))
      : [...el.childNodes].some(child => child.nodeType === 3 && secrets.some(secret => child.data.includes(secret)));
    if (!repeats) continue;
    if (isControl(el)) secretFields.add(el);
    el.style.webkitTextSecurity = 'disc';
  }
}

// The focused field is about to be typed a secret into.
function markSecret() {
  let el = document.activeElement;
  while (el?.shadowRoot?.activeElement) el = el.shadowRoot.activeElement;
  if (!el) return;
  secretFields.add(el);
  el.style.webkitTextSecurity = 'disc';
}
