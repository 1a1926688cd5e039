// The page's worker, with the project's own trainer.

import { makeEngine } from "../node/engine_wasm.ts";
import { serve } from "../node/serve.ts";

serve(makeEngine);
