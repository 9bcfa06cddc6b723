"""The network: graph batches to predictions.

`interfaces` lists what a convolution, pooling, edge calculator or node feature must provide;
`network` connects them.
"""
