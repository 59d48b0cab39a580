"""What a model is, where it comes from and where it is kept.

`catalog` and `acquire` find and fetch bases, `arch` and `weights` read them, `text` is their
tokenizer and what a completion's text asks, `store` keeps all of it by digest, `tables` reads rows.
May import `kernels` and the shared files.
"""
