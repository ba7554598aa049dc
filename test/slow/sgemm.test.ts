/** The bits of sgemm for every remainder of its tiles, and at the k-blocks, with all usual alphas and betas. */
import { test } from "uvu";
import { blockEdges, remainders, SCALES } from "../support/sgemm.js";

remainders(SCALES);
blockEdges(SCALES);

test.run();
