"""Figures of recordings, scores, masks and evaluations: arrays and tables in, Plotly figures out.

Every figure has a transparent background and leaves the font colour to its host, to be readable in light
and dark themes. Scales are fixed unless stated otherwise, so two runs can be compared by eye. Layers
count from 0. Values that were not measured (NaN) are drawn as missing, never as a number. Figures have
no title: pages and reports write captions.

Plotly is imported only in this package and slow to import: import a module of it where a figure is drawn.

    heatmaps   similarity_heatmap  task_heatmap  difference_heatmap  edit_strips     layers across, rows down
    profiles   layer_profile  score_bars                                one number per layer
    recorded   measure_heatmap  span_heatmap  token_heatmap  image_overlay  depth_profile     what a recording holds
    rankings   agreement_heatmap  rank_intervals  damage_scatter           how reliable a ranking is
    skipping   skip_curves  mark_skipped                                where vision tokens could skip layers, and what it does
    savings    cost_chart                                               what dropping layers saves
    curves     retention_curve                                          retention over the number of dropped layers
    regimes    regime_chart                                             where the choice of a ranking matters
    front      front_chart                                              parameters left and retention of each mask
    outcomes   damage_bars                                              scores of one mask against the dense model
    tokens     token_strip                                              where a response diverges from the dense one
    scales     the fixed scale of every measure
    shades     the same scales for tables of cells, without a figure
    memory     memory_bar                                               the memory that a model needs
    facets     plots side by side on the same axes, one per domain
    traces     traces as dictionaries, marks beyond an axis
    style      colours, labels, the empty figure that all start from
"""
