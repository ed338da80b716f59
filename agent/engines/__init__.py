"""Engines: each answers from one checkpoint behind `agent.engine.Engine`."""
