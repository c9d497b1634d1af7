"""llama.cpp's own HTTP server in a process: prints its address, ends when its stdin is closed.

Arguments: the GGUF file, the context of one slot, and optionally a number of slots; with it the
server has that many, and no prompt cache in host memory.
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
    params.n_parallel = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    params.n_ctx = int(sys.argv[2]) * params.n_parallel
    params.endpoint_metrics = True
    if len(sys.argv) > 3:
        params.cache_ram_mib = 0
    server = xllamacpp.Server(params)
    print(f"address {server.listening_address}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
