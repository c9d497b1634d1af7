"""llama.cpp's own HTTP server in a process: prints its address, ends when its stdin is closed.

Arguments: the GGUF file, the context of one slot, the number of slots, and MiB of prompt cache in
host memory; optionally `unified` for slots that share one buffer.
"""

import sys

import xllamacpp


def main() -> None:
    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.cpuparams.n_threads = 1
    params.warmup = False
    params.n_parallel = int(sys.argv[3])
    params.n_ctx = int(sys.argv[2]) * params.n_parallel
    params.cache_ram_mib = int(sys.argv[4])
    params.kv_unified = "unified" in sys.argv[5:]
    params.endpoint_metrics = True
    server = xllamacpp.Server(params)
    print(f"address {server.listening_address}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
