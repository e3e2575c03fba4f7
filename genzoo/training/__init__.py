"""The trainer: any model of the contract, until its budget is used up."""
