"""Screening of very many crystals: tables that can be resumed, several processes, selections."""
