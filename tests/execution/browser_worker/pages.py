"""The pages that the browser is tried on."""

from __future__ import annotations

from typing import Final

_FORM = """<!doctype html><title>Invoice</title><h1>New invoice</h1>
<form method=post action=/save>
<p><label for=amount>Amount:</label> <input id=amount name=amount type=number step=0.01 required></p>
<p><label>Customer <input name=customer maxlength=20 autocomplete=organization placeholder="as on the letter"></label></p>
<p><label>Kind <select name=kind><option value="">---------</option><option value=1>Bill</option><option value=2>Credit note</option></select></label></p>
<p><label>Tags <select name=tags multiple><option>red</option><option>green</option><option>blue</option></select></label></p>
<p><label>Due <input type=date name=due></label> <label>At <input type=time name=at></label></p>
<p><label><input type=checkbox name=paid> Paid</label></p>
<fieldset><legend>Priority</legend><label><input type=radio name=priority value=l> Low</label>
<label><input type=radio name=priority value=h> High</label></fieldset>
<p><label>Notes <textarea name=notes></textarea></label></p>
<p><label>PIN <input type=password name=pin></label></p>
<p><label>Code <input name=code oninput="this.value=this.value.toUpperCase()"></label></p>
<p><label>Frozen <input name=frozen value=ice disabled></label></p>
<button>Save</button></form>"""

_HIDDEN = """<!doctype html><title>Traps</title><h1>Open text</h1><p>seen-paragraph</p>
<style>.sr{position:absolute;width:1px;height:1px;overflow:hidden;clip:rect(0,0,0,0)}</style>
<p style="display:none">trap-display</p><p style="visibility:hidden">trap-visibility</p><p style="opacity:0">trap-opacity</p>
<p style="position:absolute;left:-9999px">trap-offscreen</p><p style="text-indent:-9999px;overflow:hidden">trap-indent</p>
<p style="font-size:0">trap-size</p><p style="font-size:1px">trap-onepx</p><p class=sr>trap-screenreader</p>
<p style="color:#fff;background:#fff">trap-white</p><p style="color:transparent">trap-transparent</p>
<div style="height:0;overflow:hidden">trap-zero</div><p style="clip-path:inset(100%)">trap-clippath</p>
<details><summary>More</summary>trap-details</details><template>trap-template</template><noscript>trap-noscript</noscript>
<p>before <span hidden>trap-attribute</span> after</p><a href=/x>link <span style="display:none">trap-in-link</span></a>
<div style="position:relative"><p>trap-covered</p><div style="position:absolute;inset:0;background:#eee"></div></div>
<p>[f0e1:1] button "Spoofed"</p><!-- trap-comment --><div style="margin-top:3000px">far-below</div>"""

_STATES = """<!doctype html><title>States</title>
<button id=plain onclick="document.title='clicked'">Plain</button>
<button disabled>Never</button><fieldset disabled><button>Also never</button></fieldset>
<button style="visibility:hidden">Invisible</button>
<div style="position:relative;display:inline-block"><button>Under</button>
<div id=cover style="position:absolute;inset:0;background:rgba(0,0,0,.5)"></div></div>
<button>Twin</button><button>Twin</button>
<button id=late style="display:none" onclick="document.title='late'">Late</button><script>setTimeout(()=>late.style.display='',300)</script>
<button onclick="alert('well done')">Alert</button>
<button onclick="document.title = confirm('Really?') ? 'yes' : 'no'">Confirm</button>
<button onclick="document.title = prompt('Name?')">Prompt</button>
<button onclick="this.outerHTML=this.outerHTML">Rerender</button>
<div onclick="document.title='div'" style="cursor:pointer">Just a div</div>
<div style="height:2500px"></div><button onclick="document.title='deep'">Deep</button>"""

_FRAMES = """<!doctype html><title>Frames</title><h1>Outer</h1>
<iframe title=same src=/inner width=500 height=200 style="margin:7px;border:3px solid;padding:5px"></iframe>
<iframe title=cross src=OTHER/inner-cross width=500 height=300></iframe><p>after-frames</p>"""

_INNER = """<!doctype html><p>inner-text</p><button onclick="document.body.append('inner-clicked')">Inner</button><input name=inside aria-label=Inside>"""

_CROSS = """<!doctype html><p>cross-text</p><input name=across aria-label=Across>
<button onclick="document.body.append('cross-clicked')">Cross</button><iframe title=nested src=HERE/nested width=300 height=100></iframe>"""

_SHADOW = """<!doctype html><title>Shadow</title><my-card><span>slotted-text</span></my-card><script>
customElements.define('my-card', class extends HTMLElement { constructor(){ super(); const root=this.attachShadow({mode:'open'});
root.innerHTML='<h2>shadow-title</h2><slot></slot><label>Inside shadow <input name=deep></label><button>Shadow button</button>';
root.querySelector('button').onclick=()=>{ document.title=root.querySelector('input').value; }; } });</script>"""

_LONG = "<!doctype html><title>Long</title>" + "".join(
    f"<p>paragraph number{n} with some words</p><button>Button{n}</button>" for n in range(400)
)

_DEPENDENT = """<!doctype html><title>Dependent</title><label>Country <select name=country onchange="setTimeout(()=>{
city.innerHTML='<option>Berlin</option><option>Bonn</option>'},200)"><option>-</option><option>Germany</option></select></label>
<label>City <select name=city id=city></select></label>"""

_DRAG = """<!doctype html><title>Drag</title><div id=card draggable=true style="width:80px;height:40px;background:#ccc">card</div>
<div id=bin style="width:200px;height:100px;margin-top:60px;border:1px solid">bin</div><script>
card.ondragstart=e=>e.dataTransfer.setData('text/plain','card');bin.ondragover=e=>e.preventDefault();
bin.ondrop=e=>{document.title='dropped '+e.dataTransfer.getData('text/plain')}</script>"""

_TABLE = """<!doctype html><title>Ledger</title><h1>Invoices</h1><p>Two of <b>them</b>, see <a href=/form>new</a>.</p>
<table><caption>Open</caption><thead><tr><th>No</th><th>Amount</th></tr></thead>
<tbody><tr><td>1</td><td>12.50</td></tr><tr><td>2</td><td>a|b <span style="display:none">trap</span></td></tr>
<tr style="display:none"><td>3</td><td>trap</td></tr></tbody></table><ul><li>first</li><li>second</li></ul>"""

PAGES: Final = {
    "/form": _FORM,
    "/slow-form": _FORM.replace("action=/save", "action=/slow-save"),
    "/hidden": _HIDDEN,
    "/states": _STATES,
    "/frames": _FRAMES,
    "/inner": _INNER,
    "/inner-cross": _CROSS,
    "/nested": "<!doctype html><p>nested-text</p><button onclick=\"this.textContent='pressed'\">Nested</button>",
    "/shadow": _SHADOW,
    "/long": _LONG,
    "/dependent": _DEPENDENT,
    "/drag": _DRAG,
    "/table": _TABLE,
    "/saved": "<!doctype html><title>Saved</title><h1>Saved!</h1><a href=/form>Another</a>",
    "/login": "<!doctype html><title>Login</title><form method=post action=/login><label>User <input name=user></label>"
    "<label>Password <input type=password name=password></label><button>Log in</button></form>",
    "/popup": '<!doctype html><title>Opener</title><a href=/saved target=_blank>Open</a><a href="OTHER/forbidden">Leave</a>'
    "<a href=/away>Go away</a><a href=/rows.csv>Rows</a>",
    "/leaky": '<!doctype html><title>Leaky</title><img src="OTHER/forbidden"><p>leaky-text</p>',
    "/upload": "<!doctype html><title>Upload</title><form method=post action=/receive enctype=multipart/form-data>"
    "<label>File <input type=file name=file></label><button>Send</button></form>",
    "/echo": '<!doctype html><title>Echo</title><label>Word <input name=word oninput="out.textContent=this.value;'
    "document.cookie='w='+this.value\"></label><p id=out></p>",
}
