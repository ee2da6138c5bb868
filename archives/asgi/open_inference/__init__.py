"""The Open Inference Protocol, version 2: another form of the same requests and answers.

https://github.com/kserve/open-inference-protocol (REST), with the binary tensor extension.
Start at `endpoints`; `forms` reads a request and writes an answer.
"""
