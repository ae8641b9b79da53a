"""The pure modules and the judges load without torch or a client library."""

import subprocess
import sys


def test_light_modules_stay_light():
    code = (
        "import sys, p2r_lib.template, p2r_lib.rewards, p2r_lib.judges, p2r_lib.judges.prompts\n"
        "import p2r_lib.judges.anthropic, p2r_lib.judges.openai_compatible\n"
        "heavy = {'torch', 'transformers', 'anthropic', 'openai', 'trl'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
