// One line of Python and a button that copies it. The code enters through textContent.
function render({ model, el }) {
  const row = document.createElement("div");
  row.className = "sv-code";
  const code = document.createElement("code");
  code.setAttribute("aria-label", "the same in Python");
  const copy = document.createElement("button");
  copy.type = "button";
  copy.textContent = "copy";
  copy.title = "Copy this line";
  row.append(code, copy);
  el.append(row);
  const show = () => { code.textContent = model.get("code"); code.title = model.get("code"); };
  show();
  model.on("change:code", show);

  function byHand(text) { // where the page has no clipboard of its own, as over plain http
    const area = document.createElement("textarea");
    area.value = text;
    area.style.position = "fixed";
    area.style.opacity = 0;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
  copy.addEventListener("click", async () => {
    const text = model.get("code");
    let done = true;
    try { await navigator.clipboard.writeText(text); } catch (error) { done = byHand(text); }
    copy.textContent = done ? "copied" : "select it";
    setTimeout(() => { copy.textContent = "copy"; }, 1200);
  });
}
export default { render };
