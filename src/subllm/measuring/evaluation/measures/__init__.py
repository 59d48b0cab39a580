"""What a model can be measured on, one file each, behind one protocol.

measure     the protocol: read data once, then measure any model on a bench
table       task names -> measures; a new measure is a file here and a line there
text        what measures on held-out text share
"""
