// Draws with mouse, finger or pen. Sends the picture when a stroke ends. gradio.HTML defines `element` and `trigger`.
const canvas = element.querySelector("canvas");
const pen = canvas.getContext("2d");
Object.assign(pen, {lineWidth: 16, lineCap: "round", lineJoin: "round"});

function clear() {
  pen.fillStyle = "white";
  pen.fillRect(0, 0, canvas.width, canvas.height);
}

function draw(event) {
  const scale = canvas.width / canvas.clientWidth;
  pen.lineTo(event.offsetX * scale, event.offsetY * scale);
  pen.stroke();
}

canvas.addEventListener("pointerdown", event => {
  canvas.setPointerCapture(event.pointerId);
  pen.beginPath();
  draw(event);
  canvas.addEventListener("pointermove", draw);
});
for (const end of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(end, () => {
    canvas.removeEventListener("pointermove", draw);
    trigger("input", {picture: canvas.toDataURL()});
  });
}
element.querySelector("button").addEventListener("click", () => {
  clear();
  trigger("clear");
});
clear();
