"""One call of every pass of every CUDA kernel, small and of odd sizes, for compute-sanitizer, which is slow."""

from __future__ import annotations

import itertools

import torch

import wgan_kernels as wk
from wgan_kernels.ops.bias_leaky_relu import bias_leaky_relu
from wgan_kernels.ops.group_norm import group_norm
from wgan_kernels.ops.kernel_matvec import kernel_matvec
from wgan_kernels.ops.kernel_sums import kernel_sums
from wgan_kernels.ops.minibatch_discrimination import minibatch_discrimination
from wgan_kernels.ops.minibatch_stddev import minibatch_stddev
from wgan_kernels.ops.mlp_critic_loss import mlp_critic_loss

# float16 lies in memory as bfloat16 does.
DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def points(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(shape, device="cuda").to(dtype).requires_grad_()


def stepped(dtype: torch.dtype) -> None:
    params = [points(size, dtype=dtype) for size in (1, 7, 4099)]
    for settings in ({}, {"momentum": 0.9, "centered": True, "capturable": True}):
        optimiser = wk.optim.ClippedRMSprop(params, record_stats=True, **settings)
        for param in params:
            param.grad = torch.ones_like(param)
        params[0].grad = None
        optimiser.step()
        optimiser.clip_stats()


def main() -> None:
    torch.manual_seed(0)
    wk.use_backend("native")
    for dtype in DTYPES:
        wk.clip_weights_([torch.randn(size, device="cuda").to(dtype) for size in (1, 7, 4099)], 0.1)
        stepped(dtype)
        wk.interpolate(points(3, 131, dtype=dtype), points(3, 131, dtype=dtype))
        for shape in ((3, 5, 7), (2, 3, 130), (1, 2, 4099), (131, 40)):
            x, bias = points(*shape, dtype=dtype), points(shape[1], dtype=dtype)
            y = bias_leaky_relu(x, bias, 0.2, 1.4, 1.0)
            first = torch.autograd.grad(y, (x, bias), points(*shape, dtype=dtype), create_graph=True)
            (first[0].float().square().sum() + first[1].sum()).backward()
        for shape, groups in (((5, 37), 1), ((2, 8, 9001), 2), ((35, 6, 9), 3)):
            for last in (False, True) if len(shape) > 2 else (False,):
                x = points(*shape, dtype=dtype)
                weight = points(shape[1], dtype=torch.promote_types(dtype, torch.float32))
                laid = x.movedim(1, -1).contiguous().movedim(-1, 1) if last else x
                y = group_norm(laid, groups, weight, weight, 1e-5)
                first = torch.autograd.grad(y.float().square().sum(), (x, weight), create_graph=True)
                sum([each.float().square().sum() for each in first]).backward()
        for shape in ((5, 37), (1, 9001), (70, 3)):
            grad = points(*shape, dtype=dtype)
            (first,) = torch.autograd.grad(wk.norm_penalty(grad), grad, create_graph=True)
            first.float().square().sum().backward()
        x, y, params = points(67, 19, dtype=dtype), points(130, 19, dtype=dtype), points(2, 1, dtype=torch.float64)
        v = points(130, 3, dtype=torch.promote_types(dtype, torch.float32))
        for kinds in (("rbf", "inverse_multiquadric"), ("matern32", "polynomial"), ("energy", "polynomial")):
            value, _ = kernel_sums(x, y, kinds, params.abs() + 1, (1.0, 1.0, -2.0), diagonal=True)
            first = torch.autograd.grad(value, (x, params), create_graph=True)
            (first[0].float().square().sum() + first[1].sum()).backward()
            kernel_matvec(x, y, v, kinds, (1.0, 2.0)).sum().backward()
        m = points(70, 54, dtype=dtype).unflatten(1, (3, 18))
        for begin, end in ((0, -1), (40, 50)):
            o = minibatch_discrimination(m, begin=begin, end=end)
            (first,) = torch.autograd.grad(o.float().square().sum(), m, create_graph=True)
            first.float().square().sum().backward()
        for shape in ((8, 6, 5), (4, 2, 4099)):
            x = points(*shape, dtype=dtype)
            value = minibatch_stddev(x, group_size=4, num_channels=2)
            (first,) = torch.autograd.grad(value.float().square().sum(), x, create_graph=True)
            first.float().square().sum().backward()
        for B, sizes in ((5, (37, 20, 1)), (180, (4, 8, 1)), (3, (2, 2700, 3))) if dtype != torch.bfloat16 else ():
            x = [points(B, sizes[0], dtype=dtype).detach() for _ in range(3)]
            weights = [points(out, n, dtype=dtype).detach() for n, out in itertools.pairwise(sizes)]
            biases = [weight[:, 0].contiguous() for weight in weights]
            settings = {"target": 1.0, "one_sided": False, "reduction": "mean", "weight": 10.0}
            mlp_critic_loss(*x, weights, biases, [0.2, 1.0], **settings)
        torch.cuda.synchronize()
        print(f"{dtype} ran")
    print("every kernel ran")


if __name__ == "__main__":
    main()
