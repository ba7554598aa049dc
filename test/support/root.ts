/**
 * The repository's folder. This file lies three folders below it, in dist/test/support/, and so does a bundle that it
 * becomes part of, in dist/matrix/<target>/: tests find files from here, however deep they lie themselves.
 */
export const ROOT = new URL("../../../", import.meta.url);
