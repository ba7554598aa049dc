import { init, lora, type Tensor, tensor } from "wasm-lora";
init().then(() => {
  const y: Tensor = new lora.Linear(2, 2, { r: 1 }).forward(tensor([[1, 2]]));
  return y.size;
});
