"""Plans: a program's steps at one batch size, written down as calls of kernels, with autograd done beforehand."""

from gridsched.train.plan.build import lacks, plan_of
from gridsched.train.plan.format import Plan

__all__ = ["Plan", "lacks", "plan_of"]
