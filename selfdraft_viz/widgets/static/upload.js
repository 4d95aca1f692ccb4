// Hands a file that the reader chooses to the kernel.
function render({ model, el }) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "jupyter-button widget-button sv-download";
  button.textContent = model.get("label");
  button.title = model.get("help");
  const field = document.createElement("input");
  field.type = "file";
  field.accept = model.get("accept");
  field.hidden = true;
  field.setAttribute("aria-label", model.get("label"));
  el.append(button, field);
  button.addEventListener("click", () => field.click());
  field.addEventListener("change", async () => {
    const file = field.files[0];
    if (file) model.send({ type: "file", name: file.name }, undefined, [await file.arrayBuffer()]);
    field.value = "";
  });
}
export default { render };
