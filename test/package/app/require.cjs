const { init, tensor } = require("wasm-lora");
init().then(() => console.log(tensor([1, 2, 3]).size));
