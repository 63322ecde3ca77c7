"""Pictures of recordings, scores, masks and evaluations: arrays and tables in, Plotly figures out.

Every figure has a transparent background and leaves the font colour to its host, so that it reads in
light and in dark. Scales are fixed unless said otherwise, so that two runs compare by eye. Layers
count from 0. What was not measured (NaN) is drawn as missing, never as a number. No figure carries
a title: pages and reports write captions.

Plotly is imported here and nowhere else in the value half; import this package when a picture is due.

    heatmaps   similarity_heatmap  difference_heatmap  edit_strips      layers across, rows down
    profiles   layer_profile  score_bars                                one number per layer
    recorded   measure_heatmap  span_heatmap  token_heatmap  image_overlay  depth_profile     what a recording holds
    rankings   agreement_heatmap  rank_intervals  damage_scatter  skip_curves     how far a ranking can be trusted
    costs      cost_chart                                               what dropping layers saves
    curves     retention_curve                                          what masks cost over the number of dropped layers
    regimes    regime_chart                                             where the choice of a ranking matters
    front      front_chart                                              what each mask leaves and keeps
    outcomes   damage_bars                                              what one mask cost
    tokens     token_strip                                              where a response parts from the dense one
    scales     the fixed scale of every measure
    memory     memory_bar                                               what a model takes
    facets     plots side by side on the same axes, one per domain
    traces     traces as dictionaries, marks beyond an axis
    style      colours, labels, the empty figure they all start from
"""
