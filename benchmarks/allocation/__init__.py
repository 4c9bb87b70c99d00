"""The allocator as a solver: its gap against brute force and its certificate, its seconds, beside DP, SMCP's merge and HiGHS."""
