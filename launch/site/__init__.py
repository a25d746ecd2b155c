"""What a site is: asked on its login node, written down as a profile, checked, and tried in a job."""
