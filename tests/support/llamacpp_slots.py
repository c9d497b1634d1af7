"""llama.cpp's server with slots and without its prompt cache in host memory. See llamacpp_server.

Arguments: the GGUF file, the number of slots.
"""

import sys

import xllamacpp


def main() -> None:
    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = int(sys.argv[2])
    params.n_ctx = 512 * params.n_parallel
    params.cache_ram_mib = 0
    params.cpuparams.n_threads = 1
    params.warmup = False
    server = xllamacpp.Server(params)
    print(f"address {server.listening_address}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
