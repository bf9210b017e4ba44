"""What only the shipped small models need: their corpus, closed-form classifiers, questions and measurements."""
