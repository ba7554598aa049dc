// Parts of packages that have no declarations of their own.

// The package's own face compiles WebAssembly for Snappy as it is imported, which a Worker refuses: its other codecs
// are taken one by one.
declare module "hyparquet-compressors/src/gzip.js" {
  export function gunzip(input: Uint8Array, output: Uint8Array): Uint8Array;
}
declare module "hyparquet-compressors/src/lz4.js" {
  export function decompressLz4(input: Uint8Array, outputLength: number): Uint8Array;
  export function decompressLz4Raw(input: Uint8Array, outputLength: number): Uint8Array;
}
// The other build asks for Node's streams, which not every bundler finds.
declare module "papaparse/papaparse.min.js" {
  import * as papaparse from "papaparse";
  export default papaparse;
}
