"""What "auto" means: settings from facts about model, rows and cluster, each with its reason.

Pure functions of `ModelFacts`, `RowFacts` and the cluster's resources. No torch, no ray. A
function returns the fields it chose and notes for people; what a client set itself it honours.
"""
