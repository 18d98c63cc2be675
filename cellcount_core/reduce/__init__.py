"""From the committed parts of a run to wells, plates and summary, and the proof that they are right."""
