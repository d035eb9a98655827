"""The imperative shell: wires the rooms, runs effects, serves the API."""
