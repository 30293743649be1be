"""The programs: one stage or tool each; they import `cardamage` and never each other."""
