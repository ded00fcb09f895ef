// Draws with mouse, finger or pen. Sends the picture when a stroke ends. gradio.HTML defines `element` and `trigger`.
const canvas = element.querySelector("canvas");
const pen = canvas.getContext("2d");
Object.assign(pen, {lineWidth: 16, lineCap: "round", lineJoin: "round"});
let pointer = null;  // the one that draws: a second finger or a resting palm draws nothing

function clear() {
  pen.fillStyle = "white";
  pen.fillRect(0, 0, canvas.width, canvas.height);
}

function draw(event) {
  if (event.pointerId !== pointer) return;
  const scale = canvas.width / canvas.clientWidth;
  pen.lineTo(event.offsetX * scale, event.offsetY * scale);
  pen.stroke();
}

canvas.addEventListener("pointerdown", event => {
  if (pointer !== null) return;
  pointer = event.pointerId;
  canvas.setPointerCapture(pointer);
  pen.beginPath();
  draw(event);
  canvas.addEventListener("pointermove", draw);
});
for (const end of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(end, event => {
    if (event.pointerId !== pointer) return;
    pointer = null;
    canvas.removeEventListener("pointermove", draw);
    trigger("input", {picture: canvas.toDataURL()});
  });
}
element.querySelector("button").addEventListener("click", () => {
  clear();
  trigger("clear");
});
clear();
