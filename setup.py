"""Everything is in setup.cfg; this file is where the optional CPU kernels will be declared."""

from setuptools import setup

setup()
