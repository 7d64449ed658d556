"""Jobs as such, whatever their stage: their order, directories, processes and ends."""
