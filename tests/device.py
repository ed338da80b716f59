"""Where the models under test compute: on the processor, or where HONED_TEST_DEVICE says (`make test-gpu`).

Tests that look inside a model keep it on the processor, whose results they compare to the last digits.
"""

import os

NAME = os.environ.get("HONED_TEST_DEVICE", "cpu")
