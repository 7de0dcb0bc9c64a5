"""How good a model is: protocols, rivals, intervals, tables (`transfer.evaluate_transfer`)."""
