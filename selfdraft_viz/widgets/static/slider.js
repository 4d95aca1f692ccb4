// A slider with a field for exact values. Only a hand sends anything: values set from Python are shown, never echoed.
function render({ model, el }) {
  const root = document.createElement("div");
  root.className = `sv-slider ${model.get("vertical") ? "sv-vertical" : "sv-horizontal"}`;
  const label = document.createElement("label");
  const range = document.createElement("input");
  range.type = "range";
  const field = document.createElement("input");
  field.type = "number";
  field.step = "any";
  label.textContent = model.get("label");
  root.title = model.get("help");
  range.setAttribute("aria-label", model.get("spoken"));
  field.setAttribute("aria-label", `${model.get("spoken")}, exact value`);
  for (const name of ["min", "max", "step"]) range[name] = model.get(name);
  if (model.get("vertical")) range.setAttribute("orient", "vertical");
  root.append(label, range, field);
  el.append(root);

  function show() {
    const value = model.get("value");
    if (document.activeElement !== range) range.value = value;
    if (document.activeElement !== field) field.value = Number(value.toFixed(3)).toFixed(Math.abs(value * 100 - Math.round(value * 100)) < 1e-6 ? 2 : 3);
    range.disabled = field.disabled = model.get("disabled");
    root.style.display = model.get("hidden") ? "none" : "";
  }
  function moved(text) {
    const value = parseFloat(text);
    if (Number.isNaN(value)) return show();
    model.set("value", value);
    model.save_changes();
  }
  range.addEventListener("input", () => { moved(range.value); show(); });
  field.addEventListener("change", () => moved(field.value));
  field.addEventListener("blur", show);
  range.addEventListener("blur", show);
  for (const name of ["value", "disabled", "hidden"]) model.on(`change:${name}`, show);
  show();
}
export default { render };
