"""Benchmarks as data: one folder with a task.yaml each, plus shared solvers and scorers."""
