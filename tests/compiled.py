"""What tests of torch.compile and torch.export share."""

import io

import torch


def gradients(run, x, parameters):
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(run(leaf).sum(), [leaf, *parameters], allow_unused=True)


def saved_and_loaded(program):
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file).module()
