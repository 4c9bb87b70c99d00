"""The main job: capture, price, allocate, cut, recover, build and measure, in a closed loop."""
