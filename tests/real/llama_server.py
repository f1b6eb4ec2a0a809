"""Runs llama.cpp's own HTTP server: `llama_server.py PORT MODEL.gguf`."""

import signal
import sys

import xllamacpp

params = xllamacpp.CommonParams()
params.hostnames, params.port = ["127.0.0.1"], int(sys.argv[1])
params.model.path = sys.argv[2]
params.model_alias = {"gemma"}
params.n_ctx = 4096
params.n_parallel = 2
params.cpuparams.n_threads = 1  # the proxy and its client need the other core
params.endpoint_slots = True
params.endpoint_metrics = True
server = xllamacpp.Server(params)
signal.pause()
