"""The tests that a run of pytest skipped, as arguments for another one: skipped.py JUNIT_XML."""

import sys
import xml.etree.ElementTree as ElementTree

for test in ElementTree.parse(sys.argv[1]).iter("testcase"):
    if test.find("skipped") is not None:
        of_class, name = test.get("classname"), test.get("name")  # a whole file has its name alone
        print(f"{of_class.replace('.', '/')}.py::{name}" if of_class else f"{name.replace('.', '/')}.py")
