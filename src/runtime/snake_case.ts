/** camelCase as Python's libraries spell it: `loraAlpha` is `lora_alpha`. */
export function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
